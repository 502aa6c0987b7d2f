"""Tests of the HTTP connectors over real sockets."""
