-- The stores beyond the upstream broker whose confirmation a relay waits for.

CREATE TABLE IF NOT EXISTS relay_store (
  name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'client id of the store',
  since TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'when it first confirmed',
  PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
