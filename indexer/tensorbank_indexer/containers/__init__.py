"""Files and the containers in them: trees of files, tar and zip by byte ranges, limits on what they claim, and their problems."""
