-- depends: pycheckout_0021_converted_carts_immutable
-- cost: none
--
-- What deployments remember: the releases, the functions that are ours, and the roles that were granted something; and what
-- audits found.

do $$ begin perform checkout_migration_open(); end $$;

create table if not exists checkout_releases (
  id bigserial primary key,
  version text not null,
  hash text not null,
  deployed_at timestamptz not null default now()
);

create table if not exists checkout_functions (
  signature text collate "C" primary key,
  name text not null
);

create table if not exists checkout_roles (
  role_name text collate "C" not null,
  role_oid oid not null,
  scope text collate "C" not null constraint checkout_roles_scope_known check (scope in ('checkout', 'quotes', 'orders', 'operators', 'payments', 'relay')),
  primary key (role_name, scope)
);

create table if not exists checkout_audits (
  id bigserial primary key,
  since timestamptz,
  began_at timestamptz not null,
  ended_at timestamptz not null,
  findings bigint not null
);

do $$
begin
  perform checkout_migration_close('pycheckout_0022_operations');
  perform checkout_comment(said.name, said.comment) from (values
    ('checkout_releases', 'Deployments of the functions, newest last. checkout_version() reads it.'),
    ('checkout_releases.id', 'Order of the deployments.'),
    ('checkout_releases.version', 'Release, such as 0.1.0.'),
    ('checkout_releases.hash', 'SHA-256 of its function files, in hex.'),
    ('checkout_releases.deployed_at', 'When it was first deployed; the same functions again are no new row.'),
    ('checkout_functions', 'Functions that the last deployment created; the next one drops what it no longer has.'),
    ('checkout_functions.signature', 'Name and argument types, as DROP FUNCTION takes them.'),
    ('checkout_functions.name', 'Name, which is also that of its file.'),
    ('checkout_roles',
     'Roles that checkout_grant(), checkout_grant_quotes(), checkout_grant_orders(), checkout_grant_payments(), checkout_grant_operators() and '
     'checkout_grant_relay() '
     'were called for, until checkout_revoke(). A deployment gives them what its release brings anew.'),
    ('checkout_roles.role_name', 'Name of the role when it was granted.'),
    ('checkout_roles.role_oid',
     'Its oid in this cluster then. A role of that name with another oid is another role: it is given nothing until somebody grants again.'),
    ('checkout_roles.scope', 'What it was granted, as checkout_privileges() lists it.'),
    ('checkout_audits', 'Runs of pycheckout audit that came to their end. checkout_metrics() and pycheckout top tell the last one.'),
    ('checkout_audits.id', 'Order of the runs.'),
    ('checkout_audits.since', 'Orders and carts from then on were looked at. Null: all.'),
    ('checkout_audits.began_at', 'When the run began.'),
    ('checkout_audits.ended_at', 'When it ended.'),
    ('checkout_audits.findings', 'How many broken invariants it found.')
  ) as said (name, comment);
  -- a record of what was deployed and granted, worth nothing without the functions: no loss
  update checkout_ledger set definition = 'false' where kind = 'table' and migration = 'pycheckout_0022_operations';
end
$$;
