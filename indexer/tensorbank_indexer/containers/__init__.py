"""Files and the containers in them: trees of files, tar and zip by byte ranges, limits for what they claim, problems of a member."""
