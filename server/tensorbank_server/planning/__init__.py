"""Plans of callers: kept in a folder, found again after a restart, and handed out in tasks."""
