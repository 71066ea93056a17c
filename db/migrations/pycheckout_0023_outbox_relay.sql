-- depends: pycheckout_0022_operations
-- cost: moment outbox_events
--
-- What a relay needs: when an event is due, who has leased it and until when, which events were parked, and how far the
-- purge went.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('outbox_events'); end $$;

alter table outbox_events add column if not exists next_attempt_at timestamptz;
alter table outbox_events add column if not exists claim_id uuid;
alter table outbox_events add column if not exists claimed_until timestamptz;
alter table outbox_events add column if not exists claim_count integer;

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
  id bigserial primary key,
  purged_before timestamptz not null,
  deleted bigint not null,
  purged_at timestamptz not null
);

do $$
begin
  perform checkout_migration_close('pycheckout_0023_outbox_relay');
  perform checkout_comment(said.name, said.comment) from (values
    ('outbox_events.next_attempt_at',
     'When the relay may send this event, or sent it last; infinity: parked in outbox_dead_letters. Null: none of the relay''s, which neither '
     'sends nor purges it. A host that wants an event of its own sent inserts it with a time here.'),
    ('outbox_events.claim_id', 'The claim of the relay that has it; one whose lease has ended stays until another takes it over. Null: nobody has it.'),
    ('outbox_events.claimed_until', 'When the lease of that claim ends, by the clock of the database. Null: nobody has it.'),
    ('outbox_events.claim_count',
     'How often it was claimed as the first of its aggregate since it was last published, refused or given back; too often, and it is parked. '
     'Null: not once.'),
    ('outbox_dead_letters',
     'Events that were refused, or claimed, too often. They stay in outbox_events, unpublished, and younger events of their aggregates wait behind '
     'them: outbox_replay() sends one again, outbox_discard() gives it up for good.'),
    ('outbox_dead_letters.event_id', 'Its id in outbox_events.'),
    ('outbox_dead_letters.event_type', 'Its type there.'),
    ('outbox_dead_letters.aggregate_type', 'What it is about, as there.'),
    ('outbox_dead_letters.aggregate_id', 'Id of that, as there: in events of ours the anchor.'),
    ('outbox_dead_letters.attempt_count', 'How often the relay tried.'),
    ('outbox_dead_letters.error', 'What the last attempt failed with, up to 1000 characters.'),
    ('outbox_dead_letters.parked_at', 'When it was parked.'),
    ('outbox_purges',
     'Calls of outbox_purge() that deleted something. Events created before the latest purged_before may be gone: checkout_audit() allows for '
     'it.'),
    ('outbox_purges.id', 'Order of the calls.'),
    ('outbox_purges.purged_before', 'No event that was created at this time or later was deleted.'),
    ('outbox_purges.deleted', 'Number of events that the call deleted.'),
    ('outbox_purges.purged_at', 'When the call was.')
  ) as said (name, comment);
  -- outbox_unsent finds it out again, and a lease ends anyway: no loss
  update checkout_ledger set definition = 'false'
   where kind = 'column' and table_name = 'outbox_events' and name in ('next_attempt_at', 'claim_id', 'claimed_until', 'claim_count');
  -- for the four migrations that build them
  perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_due');
  perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_waiting');
  perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_published');
  perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'cart_records', 'idx_cart_records_converted_at_valid_until');
end
$$;
