"""Real baskets through the checkout: `make demo`, or `python -m pycheckout.demo`. Needs the extra `demo`."""
