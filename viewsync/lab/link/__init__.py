"""Links between agents and hub that do as a profile says: netem, our own program, or proxies."""
