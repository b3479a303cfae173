"""Methods side by side.

variants    what is compared: methods, allocators and the settings a sweep varies, each a job of its own
rates       one grid of learning rates for all of them: which each does best at
outcome     the result of every variant: means over seeds, the cost of reaching a target
running     runs what is not finished yet, here or in processes of their own
worker      such a process
lock        a folder belongs to one comparison at a time
comparison  all of it, from a job to a table's numbers
"""
