"""Who somebody is: wallets that signed in."""
