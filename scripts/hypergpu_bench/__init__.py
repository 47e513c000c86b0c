"""Benchmarks: `catalogue` names them, one module measures each, `report` is what they all answer."""
