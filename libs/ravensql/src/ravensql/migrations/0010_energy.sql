-- Energy of a period as what the registers grew by, whatever became of the meter.
-- Roll-ups that are there are counted again from their rows, where those still are.

-- unless column energy_rollup.delivered_kwh
ALTER TABLE energy_rollup
  MODIFY delivered_kwh_min DECIMAL(34, 9) NULL COMMENT 'register at the first reading of the period',
  MODIFY delivered_kwh_max DECIMAL(34, 9) NULL COMMENT 'and at the last, by time',
  ADD COLUMN delivered_kwh DECIMAL(34, 9) NULL
    COMMENT 'energy: what the register grew by, up to each reading of the period; NULL if unknown',
  ADD COLUMN received_kwh DECIMAL(34, 9) NULL,
  ADD COLUMN delivered_first DATETIME NULL COMMENT 'UTC: time of the first reading with a value',
  ADD COLUMN delivered_last DATETIME NULL COMMENT 'and of the last',
  ADD COLUMN received_first DATETIME NULL,
  ADD COLUMN received_last DATETIME NULL;

CREATE TABLE IF NOT EXISTS energy_meter (
  node VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  meter VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'empty if unknown',
  counted_to DATETIME NULL
    COMMENT 'UTC: rows before this are in energy_rollup; NULL if all are. Its row is the lock',
  delivered_last DATETIME NULL COMMENT 'UTC: time of the last reading with a value',
  delivered_kwh DECIMAL(34, 9) NULL COMMENT 'register then',
  received_last DATETIME NULL,
  received_kwh DECIMAL(34, 9) NULL,
  PRIMARY KEY (node, meter)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;

INSERT IGNORE INTO energy_meter (node, meter, counted_to)
SELECT DISTINCT node, meter, TIMESTAMP('1970-01-01 00:00:00') FROM energy_rollup
WHERE period_s = 86400;
