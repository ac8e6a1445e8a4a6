-- Who relays the rows upstream, and how far the numbers are that it gives to rows without one.

CREATE TABLE IF NOT EXISTS relay (
  id TINYINT UNSIGNED NOT NULL PRIMARY KEY COMMENT 'always 1',
  source CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL
    COMMENT 'UUID that names this database in what is made for rows without an identity',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'node of such rows',
  upstream TEXT NOT NULL COMMENT 'where the rows go'
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci
  COMMENT 'While a row is here, nothing is archived that was not relayed';

CREATE TABLE IF NOT EXISTS relay_run (
  hash CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY
    COMMENT 'UUID made for a run of rows without seq',
  last_seq BIGINT UNSIGNED NOT NULL COMMENT 'highest number given'
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
