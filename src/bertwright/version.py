"""The version, for what records with which it was made."""

VERSION = "0.1.0"
