-- The list of people goes on from an address: owners, then members, each in the order of their addresses.
DROP INDEX users_by_role;
CREATE INDEX users_by_role ON users (role, email_key);
