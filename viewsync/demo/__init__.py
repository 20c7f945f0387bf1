"""The demonstration: simulated cameras, agents and a hub as separate processes."""
