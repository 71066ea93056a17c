-- A record of deployments and grants: the next deployment writes it again.
delete from checkout_releases;
delete from checkout_functions;
delete from checkout_roles;
do $$ begin perform checkout_migration_undo('pycheckout_0019_operations'); end $$;
