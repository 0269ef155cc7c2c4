"""The apps: they use exported artifacts and nothing of bigkeras."""
