-- When the archived readings were received, in brief: a number that is used again is another reading.

CREATE TABLE IF NOT EXISTS archived_digest (
  hash VARCHAR(100) NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL,
  last_seq BIGINT UNSIGNED NOT NULL COMMENT 'some of the numbers from the first to this one',
  of_table VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  month CHAR(7) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'as in archive',
  digests BLOB NOT NULL COMMENT 'for each its distance from the first, and the CRC-32 of received',
  PRIMARY KEY (hash, first_seq, of_table, month),
  KEY by_month (month)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
