-- The workers that could not read the arguments of a job, by their ids, each between commas: ',3,7,'.
ALTER TABLE jobs ADD COLUMN unread_by TEXT;
