"""From raw text to a prepared corpus, on all cores or on many machines."""
