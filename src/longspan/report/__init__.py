"""One page, or one screen, that shows a results folder; nothing imports it but scripts."""
