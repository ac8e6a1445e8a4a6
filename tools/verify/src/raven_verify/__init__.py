"""The operator's tools: what the stores hold, what one of them lacks, and what they buried."""
