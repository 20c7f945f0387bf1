"""The camera side: source, extractor, publisher, agent."""
