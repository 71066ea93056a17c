-- depends: pycheckout_0021_converted_carts_immutable
-- cost: none
--
-- What deployments remember: the releases, the functions that are ours, and the roles that were granted something; what
-- audits found; and which server the market is on, if it ever moved.

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
  scope text collate "C" not null constraint checkout_roles_scope_known check (scope in ('checkout', 'quotes', 'orders', 'operators', 'payments', 'stock', 'relay')),
  primary key (role_name, scope)
);

create table if not exists checkout_audits (
  id bigserial primary key,
  since timestamptz,
  began_at timestamptz not null,
  ended_at timestamptz not null,
  findings bigint not null
);

create table if not exists checkout_market (
  place text collate "C" primary key default 'here' constraint checkout_market_one_row check (place = 'here'),
  state text collate "C" not null
    constraint checkout_market_state_known check (state in ('selling', 'leaving', 'moving', 'moved', 'arriving', 'closed')),
  epoch bigint not null,
  server text collate "C",
  home text collate "C",
  standbys text[] collate "C" not null default '{}',
  timeline text collate "C",
  vacuumed text[] collate "C" not null default '{}',
  followed_until timestamptz,
  followed_from pg_lsn,
  changed_at timestamptz not null default clock_timestamp()
);

create table if not exists checkout_moves (
  epoch bigint primary key,
  origin text collate "C",
  destination text collate "C" not null,
  frozen_at timestamptz not null default clock_timestamp()
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
     'Roles that checkout_grant(), checkout_grant_quotes(), checkout_grant_orders(), checkout_grant_payments(), checkout_grant_stock(), '
     'checkout_grant_operators() and checkout_grant_relay() '
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
    ('checkout_audits.findings', 'How many broken invariants it found.'),
    ('checkout_market',
     'Where this market is in a move to another server. No row: it never moved, and is sold in here. Each server has its own; a move does not copy it.'),
    ('checkout_market.place', 'Always here: there is one row.'),
    ('checkout_market.state',
     'selling: here. leaving: here, while it is copied. moving: nowhere, for a moment. moved: at the server. arriving: not here yet. closed: never here, '
     'since the move was taken back.'),
    ('checkout_market.epoch', 'Number of the move, one more with each.'),
    ('checkout_market.server',
     'Name, in the map of markets, of the server that it goes to or went to; of this one while it is sold in here. Null: nobody said.'),
    ('checkout_market.home', 'Name of this server, for a move that is taken back. Null: nobody said.'),
    ('checkout_market.standbys', 'Physical standbys that were seen since the move began: each must have the gate before the target opens.'),
    ('checkout_market.timeline', 'The timeline of the WAL then. Null: no move looked yet. Another one: there was a failover.'),
    ('checkout_market.vacuumed', 'Tables whose autovacuum the move switched off, and switches on again.'),
    ('checkout_market.followed_until',
     'Until when the server that it came from is to follow, which is the way back. Null: none follows.'),
    ('checkout_market.followed_from', 'Position of the WAL here at which the market was opened: what is before it came from that server. Null: none follows.'),
    ('checkout_market.changed_at', 'When the state was last changed.'),
    ('checkout_moves', 'Moves of the market from server to server. Its row is the last that is written at the one and comes to the other.'),
    ('checkout_moves.epoch', 'Number of the move.'),
    ('checkout_moves.origin', 'Name of the server that it left. Null: nobody said.'),
    ('checkout_moves.destination', 'Name of the server that it came to.'),
    ('checkout_moves.frozen_at', 'When nothing more was written at the first.')
  ) as said (name, comment);
  -- a record of what was deployed and granted, worth nothing without the functions: no loss
  update checkout_ledger set definition = 'false' where kind = 'table' and migration = 'pycheckout_0022_operations';
end
$$;
