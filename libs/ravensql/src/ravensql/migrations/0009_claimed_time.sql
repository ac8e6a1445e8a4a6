-- What a device's clock said where it cannot be true, and prices below zero.
-- A clock of 32 bits from 2000 reaches beyond what a TIMESTAMP holds.

-- unless column instantaneous_demand.claimed_time
ALTER TABLE instantaneous_demand
  ADD COLUMN claimed_time DATETIME(3) NULL COMMENT 'UTC: what the device said where it cannot be true';

-- unless column current_summation_delivered.claimed_time
ALTER TABLE current_summation_delivered
  ADD COLUMN claimed_time DATETIME(3) NULL COMMENT 'UTC: what the device said where it cannot be true';

-- unless column price_cluster.claimed_time
ALTER TABLE price_cluster
  MODIFY price BIGINT NULL,
  ADD COLUMN claimed_time DATETIME(3) NULL COMMENT 'UTC: what the device said where it cannot be true';
