-- The page that sets up a second factor has the secret in its form: nothing is kept before a code confirms it.
ALTER TABLE users DROP COLUMN totp_pending;
