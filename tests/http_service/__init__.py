"""An HTTP service on loopback for tests, which is unreliable on purpose and counts everything."""
