-- The other kinds.  `current_summation_delivered` and `price_cluster` have columns of their own;
-- `notification` keeps every other kind as the bus has it, in text so that no number is rounded.

CREATE TABLE IF NOT EXISTS current_summation_delivered (
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    COMMENT 'clock of the device, or of the reader where the device has none',
  received TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the reader',
  device_time TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the device',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  device CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  meter CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  summation_delivered BIGINT UNSIGNED NULL,
  summation_received BIGINT UNSIGNED NULL,
  multiplier BIGINT NULL,
  divisor BIGINT NULL,
  delivered_kwh DECIMAL(34, 9)
    GENERATED ALWAYS AS (
      CAST(summation_delivered AS DECIMAL(34, 9))
        * IF(multiplier = 0, 1, multiplier) / IF(divisor = 0, 1, divisor)
    ) VIRTUAL,
  received_kwh DECIMAL(34, 9)
    GENERATED ALWAYS AS (
      CAST(summation_received AS DECIMAL(34, 9))
        * IF(multiplier = 0, 1, multiplier) / IF(divisor = 0, 1, divisor)
    ) VIRTUAL,
  digits_right SMALLINT UNSIGNED NULL,
  digits_left SMALLINT UNSIGNED NULL,
  suppress_leading_zero BOOLEAN NULL,
  run TEXT NOT NULL,
  hash VARCHAR(100) NOT NULL,
  seq BIGINT UNSIGNED NOT NULL COMMENT 'number in the run, from 1, no gaps',
  relayed TINYINT UNSIGNED NULL
    COMMENT 'upstream: NULL not yet, 0 nobody took it so far, 1 taken, 2 left out for good',
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (id, time),
  UNIQUE KEY identity (hash, seq, time),
  KEY by_time (time),
  KEY by_meter (meter, time),
  KEY by_relayed (relayed, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci
  PARTITION BY RANGE (UNIX_TIMESTAMP(time)) (PARTITION p_rest VALUES LESS THAN MAXVALUE);

CREATE TABLE IF NOT EXISTS price_cluster (
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    COMMENT 'clock of the device, or of the reader where the device has none',
  received TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the reader',
  device_time TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the device',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  device CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  meter CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  price BIGINT UNSIGNED NULL,
  trailing_digits SMALLINT UNSIGNED NULL,
  price_per_kwh DECIMAL(28, 18) NULL,
  currency SMALLINT UNSIGNED NULL COMMENT 'ISO 4217 number',
  tier SMALLINT UNSIGNED NULL,
  start_time TIMESTAMP(3) NULL DEFAULT NULL,
  duration SMALLINT UNSIGNED NULL COMMENT 'minutes',
  tier_label TEXT NULL,
  rate_label TEXT NULL,
  run TEXT NOT NULL,
  hash VARCHAR(100) NOT NULL,
  seq BIGINT UNSIGNED NOT NULL COMMENT 'number in the run, from 1, no gaps',
  relayed TINYINT UNSIGNED NULL
    COMMENT 'upstream: NULL not yet, 0 nobody took it so far, 1 taken, 2 left out for good',
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (id, time),
  UNIQUE KEY identity (hash, seq, time),
  KEY by_time (time),
  KEY by_meter (meter, time),
  KEY by_relayed (relayed, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci
  PARTITION BY RANGE (UNIX_TIMESTAMP(time)) (PARTITION p_rest VALUES LESS THAN MAXVALUE);

CREATE TABLE IF NOT EXISTS notification (
  time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    COMMENT 'clock of the device, or of the reader where the device has none',
  received TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the reader',
  device_time TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the device',
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  device CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  meter CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  kind VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  body MEDIUMTEXT NOT NULL COMMENT 'JSON',
  run TEXT NOT NULL,
  hash VARCHAR(100) NOT NULL,
  seq BIGINT UNSIGNED NOT NULL COMMENT 'number in the run, from 1, no gaps',
  relayed TINYINT UNSIGNED NULL
    COMMENT 'upstream: NULL not yet, 0 nobody took it so far, 1 taken, 2 left out for good',
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  PRIMARY KEY (id, time),
  UNIQUE KEY identity (hash, seq, time),
  KEY by_time (time),
  KEY by_meter (kind, time),
  KEY by_relayed (relayed, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci
  PARTITION BY RANGE (UNIX_TIMESTAMP(time)) (PARTITION p_rest VALUES LESS THAN MAXVALUE);

CREATE TABLE IF NOT EXISTS dead_letter (
  id CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
  service VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  at TIMESTAMP(3) NULL DEFAULT NULL,
  reason VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  detail TEXT NOT NULL,
  topic MEDIUMTEXT NULL,
  payload LONGBLOB NOT NULL,
  size BIGINT UNSIGNED NOT NULL COMMENT 'bytes of the original',
  KEY by_time (at)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
