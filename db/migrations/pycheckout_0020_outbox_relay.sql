-- depends: pycheckout_0019_operations
--
-- What a relay needs: when an event is due, which events were given up, and how far the purge went.

do $$ begin perform checkout_migration_open(); end $$;

alter table outbox_events add column if not exists next_attempt_at timestamptz;

create table if not exists outbox_dead_letters (
  event_id uuid primary key,
  event_type text not null,
  aggregate_type text not null,
  aggregate_id uuid not null,
  attempt_count integer not null,
  error text not null,
  parked_at timestamptz not null
);

create table if not exists outbox_purges (
  id bigint generated always as identity primary key,
  purged_before timestamptz not null,
  deleted bigint not null,
  purged_at timestamptz not null
);

comment on table outbox_dead_letters is
  'Events that failed too often. They stay in outbox_events, unpublished; outbox_replay() sends one again, outbox_ack() gives it up for good.';
comment on column outbox_dead_letters.attempt_count is 'How often the relay tried.';
comment on column outbox_dead_letters.error is 'What the last attempt failed with.';
comment on table outbox_purges is
  'Runs of outbox_purge() that deleted something. Events created before the latest purged_before may be gone: checkout_audit() allows for it.';

do $$
begin
  perform checkout_migration_close('pycheckout_0020_outbox_relay');
  perform checkout_column_comment('outbox_events', 'next_attempt_at',
    'When the relay may send this event, or sent it last; infinity: parked in outbox_dead_letters. Null: none of the relay''s, '
    'which neither sends nor purges it. A host that wants an event of its own sent inserts it with a time here.');
  -- migration 0023 finds it out again: no loss
  update checkout_ledger set definition = 'false' where kind = 'column' and table_name = 'outbox_events' and name = 'next_attempt_at';
  -- for migrations 0021 and 0022
  perform checkout_index_prepare('pycheckout_0020_outbox_relay', 'outbox_events', 'idx_outbox_events_due');
  perform checkout_index_prepare('pycheckout_0020_outbox_relay', 'outbox_events', 'idx_outbox_events_waiting');
end
$$;
