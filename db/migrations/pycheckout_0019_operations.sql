-- depends: pycheckout_0018_converted_carts_immutable
--
-- What deployments remember: the releases, the functions that are ours, and the roles that were granted something.

do $$ begin perform checkout_migration_open(); end $$;

create table if not exists checkout_releases (
  id bigint generated always as identity primary key,
  version text not null,
  hash text not null,
  deployed_at timestamptz not null default now()
);

create table if not exists checkout_functions (
  signature text primary key,
  name text not null
);

create table if not exists checkout_roles (
  role_name text not null,
  scope text not null constraint checkout_roles_scope_known check (scope in ('checkout', 'quotes', 'orders', 'operators', 'relay')),
  primary key (role_name, scope)
);

comment on table checkout_releases is 'Deployments of the functions, newest last. checkout_version() reads it.';
comment on table checkout_functions is 'Functions that a deployment created, by their identity arguments; the next one drops what it no longer has.';
comment on table checkout_roles is 'Roles that checkout_grant(), checkout_grant_quotes(), checkout_grant_orders(), checkout_grant_operators() and checkout_grant_relay() were called for; each deployment grants again.';

do $$
begin
  perform checkout_migration_close('pycheckout_0019_operations');
  -- a record of what was deployed and granted, worth nothing without the functions: no loss
  update checkout_ledger set definition = 'false' where kind = 'table' and migration = 'pycheckout_0019_operations';
end
$$;
