"""The common parts of the tools that people call: stores, commands, and sending to stores."""
