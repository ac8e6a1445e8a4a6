-- What a reading's identity, UTC time with fractions and several meters need.
-- Each table is rebuilt once, in one statement, which happens wholly or not at all.
-- What comes after `hash` is empty in the rows of python-raven and of its scripts.

-- unless column instantaneous_demand.seq
ALTER TABLE instantaneous_demand
  ENGINE = InnoDB,
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  MODIFY time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    COMMENT 'clock of the device, or of the reader where the device has none',
  MODIFY demand INT NULL,
  MODIFY multiplier BIGINT NULL,
  MODIFY divisor BIGINT NULL,
  MODIFY run TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,
  MODIFY hash VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,
  ADD COLUMN seq BIGINT UNSIGNED NULL COMMENT 'number in the run, from 1, no gaps',
  ADD COLUMN received TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the reader',
  ADD COLUMN device_time TIMESTAMP(3) NULL DEFAULT NULL COMMENT 'clock of the device',
  ADD COLUMN node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN device CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN meter CHAR(16) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN digits_right SMALLINT UNSIGNED NULL,
  ADD COLUMN digits_left SMALLINT UNSIGNED NULL,
  ADD COLUMN suppress_leading_zero BOOLEAN NULL,
  ADD COLUMN rolled_up BOOLEAN NULL COMMENT 'whether demand_rollup counts the row',
  ADD COLUMN relayed TINYINT UNSIGNED NULL
    COMMENT 'upstream: NULL not yet, 0 nobody took it so far, 1 taken, 2 left out for good',
  ADD COLUMN relay_seq BIGINT UNSIGNED NULL COMMENT 'number upstream of a row that has no seq',
  ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  ADD COLUMN placeholder BOOLEAN
    GENERATED ALWAYS AS (demand <=> -1 AND multiplier <=> -1 AND divisor <=> -1) VIRTUAL
    COMMENT 'a row that a script of python-raven made up',
  ADD COLUMN demand_kw DECIMAL(28, 9)
    GENERATED ALWAYS AS (
      IF(multiplier < 0 OR divisor < 0, NULL,
        CAST(demand AS DECIMAL(28, 9))
          * IF(multiplier = 0, 1, multiplier) / IF(divisor = 0, 1, divisor))
    ) VIRTUAL,
  ADD PRIMARY KEY (id, time),
  ADD UNIQUE KEY identity (hash, seq, time),
  ADD KEY by_time (time),
  ADD KEY by_meter (meter, time),
  ADD KEY by_rolled_up (rolled_up),
  ADD KEY by_relayed (relayed, id)
  PARTITION BY RANGE (UNIX_TIMESTAMP(time)) (PARTITION p_rest VALUES LESS THAN MAXVALUE);

-- unless column run_info.last_seq
ALTER TABLE run_info
  ENGINE = InnoDB,
  DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci,
  MODIFY name VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,
  MODIFY hash VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,
  MODIFY meter_id VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NULL,
  MODIFY time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'when the run began',
  ADD COLUMN node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
  ADD COLUMN last_seq BIGINT UNSIGNED NULL COMMENT 'highest number stored of the run',
  ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  ADD PRIMARY KEY (id),
  ADD UNIQUE KEY run (hash, node);
