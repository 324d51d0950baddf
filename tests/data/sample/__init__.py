"""Tests of the built-in corpus; a package, so that its modules may share names with other tests."""
