"""What every kind of device shares: the HTTPS client and the contract."""
