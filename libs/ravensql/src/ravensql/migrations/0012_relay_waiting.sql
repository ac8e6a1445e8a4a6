-- What the broker upstream took and a store there has not confirmed, which is away while others are not.

CREATE TABLE IF NOT EXISTS relay_waiting (
  store VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'client id of the store',
  hash CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'as it was sent',
  seq BIGINT UNSIGNED NOT NULL COMMENT 'as it was sent',
  of_table VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  id BIGINT UNSIGNED NOT NULL COMMENT 'of the row, which is marked 3',
  time TIMESTAMP NULL DEFAULT NULL COMMENT 'of the row',
  sent BIGINT UNSIGNED NOT NULL COMMENT 'turn of five seconds in which it was sent first',
  PRIMARY KEY (store, hash, seq, of_table, id),
  KEY by_sent (store, sent),
  KEY by_row (of_table, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

-- unless column relay.turn
ALTER TABLE relay
  ADD COLUMN turn BIGINT UNSIGNED NOT NULL DEFAULT 0
    COMMENT 'turns of five seconds that relays have worked, while rows waited for stores';

-- unless column relay_store.heard
ALTER TABLE relay_store
  ADD COLUMN heard BIGINT NULL
    COMMENT 'turn in which it confirmed something last; -1: nothing waits for it any longer',
  ADD COLUMN waits BIGINT NULL
    COMMENT 'first turn after that in which rows waited for it';
