"""The operator's commands that back everything up, and put it back."""
