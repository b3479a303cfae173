"""Several processes that train one job: the contract, torch's process groups behind it, and a fleet over them."""
