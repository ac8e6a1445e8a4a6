CREATE DATABASE IF NOT EXISTS raven;
CREATE USER IF NOT EXISTS raven@localhost IDENTIFIED BY 'raven';
GRANT ALL ON raven.* TO raven@localhost;
