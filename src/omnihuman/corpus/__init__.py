"""The built-in corpus: short clips of people, drawn, voiced and described from a seed."""
