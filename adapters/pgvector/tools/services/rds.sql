-- A fresh instance of Amazon RDS or Aurora, as far as an ordinary role can tell from the documentation: the service's
-- own roles, and the parameters that it lets its administrators change. There is nothing that runs as its owner.
CREATE ROLE rdsadmin LOGIN SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS;
CREATE ROLE rds_replication NOLOGIN;
CREATE ROLE rds_password NOLOGIN;
CREATE ROLE rds_iam NOLOGIN;
CREATE ROLE rds_ad NOLOGIN;
CREATE ROLE rdstopmgr LOGIN;
GRANT pg_monitor TO rdstopmgr;
CREATE ROLE rds_superuser NOLOGIN;
GRANT pg_monitor, pg_signal_backend, rds_replication, rds_password TO rds_superuser;
CREATE ROLE rds_master LOGIN CREATEDB CREATEROLE;
GRANT rds_superuser TO rds_master;
GRANT SET ON PARAMETER session_replication_role TO rds_superuser;
GRANT SET ON PARAMETER log_min_duration_statement TO rds_superuser;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO rds_superuser;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_reset() TO rds_superuser;
