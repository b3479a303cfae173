"""What crosses the cut gives away: attacks by a curious server, and the audit that runs them."""
