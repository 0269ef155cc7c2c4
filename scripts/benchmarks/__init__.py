"""Measurements beside peers; run by ./scripts/benchmark. Nothing in bigkeras or apps imports them."""
