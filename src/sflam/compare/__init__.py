"""Methods side by side.

variants    what is compared: methods, allocators and the settings a sweep varies, each a job of its own
outcome     what every variant came to: means over seeds, the cost of reaching a target
running     runs what is not finished yet, here or in processes of their own
worker      such a process
comparison  all of it, from a job to a table's numbers
"""
