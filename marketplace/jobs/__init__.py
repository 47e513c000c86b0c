"""Demand: jobs, their money and the seats that nodes took in them."""
