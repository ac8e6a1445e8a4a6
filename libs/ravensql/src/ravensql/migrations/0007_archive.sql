-- The months that left the tables for files, and which readings went with them.

CREATE TABLE IF NOT EXISTS archive (
  month CHAR(7) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'YYYY-MM, UTC',
  of_table VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  file VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  readings BIGINT UNSIGNED NOT NULL COMMENT 'rows in the file',
  sha256 CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'of the file',
  oldest TIMESTAMP NULL DEFAULT NULL COMMENT 'lowest time in the file',
  newest TIMESTAMP NULL DEFAULT NULL COMMENT 'and highest',
  archived TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
  restoring BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'some of its rows may be in the table again',
  PRIMARY KEY (month, of_table)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

CREATE TABLE IF NOT EXISTS archived_run (
  hash VARCHAR(100) NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL,
  last_seq BIGINT UNSIGNED NOT NULL COMMENT 'every number from the first to this one is archived',
  month CHAR(7) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'as in archive',
  PRIMARY KEY (hash, first_seq, month),
  KEY by_month (month)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
