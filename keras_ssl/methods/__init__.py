"""One method a file: what it embeds, and its objective."""
