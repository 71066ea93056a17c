-- depends: pycheckout_0030_order_amounts
-- cost: none
--
-- What happened to an order, and what was paid on it: rows that are written once and never changed, since no role but the
-- owner may touch them.

do $$
begin
  perform checkout_migration_open();

  if to_regclass('order_changes') is null then
    create table order_changes (
      id uuid primary key,
      order_id uuid not null,
      kind text not null constraint order_changes_kind_known
        check (kind in ('released', 'fulfilled', 'returned', 'decided', 'canceled', 'adjusted', 'expired', 'extended')),
      lines jsonb not null,
      amount_cents bigint,
      reason text,
      details jsonb,
      change_key text collate "C",
      request_hash bytea,
      made_by text not null default session_user,
      created_at timestamptz not null
    );
    create index idx_order_changes_order_id_created_at_id on order_changes (order_id, created_at, id);
    create unique index idx_order_changes_order_id_change_key on order_changes (order_id, change_key) where change_key is not null;
  end if;

  if to_regclass('payment_events') is null then
    create table payment_events (
      order_id uuid not null,
      provider text collate "C" not null,
      provider_event_id text collate "C" not null,
      kind text not null constraint payment_events_kind_known
        check (kind in ('authorized', 'captured', 'voided', 'refunded', 'failed', 'disputed', 'reversed')),
      amount_cents bigint not null constraint payment_events_amount_not_negative check (amount_cents >= 0),
      currency text not null,
      occurred_at timestamptz,
      details jsonb,
      recorded_by text not null default session_user,
      created_at timestamptz not null,
      primary key (order_id, provider, provider_event_id)
    );
  end if;
end
$$;

do $$
begin
  perform checkout_migration_close('pycheckout_0031_order_records');
  perform checkout_comment(said.name, said.comment) from (values
    ('order_changes', 'What was done to orders after their checkout, one row a call, written with it and changed by checkout_erase() alone; the view order_history shows it.'),
    ('order_changes.id', 'Time-ordered id, which the event of the change has too.'),
    ('order_changes.order_id', 'The order.'),
    ('order_changes.kind', 'released, fulfilled, returned, decided, canceled, adjusted, expired or extended.'),
    ('order_changes.lines', 'The lines that it changed, and by how much: [{line_item_id, released_qty, fulfilled_qty, returned_qty, amounts in minor units}].'),
    ('order_changes.amount_cents', 'What it added to adjustments_cents (below 0: took off), minor units. Null: nothing.'),
    ('order_changes.reason', 'Why; checkout_erase() blanks it. Null: none was given.'),
    ('order_changes.details', 'What the caller added, such as carrier and tracking; checkout_erase() blanks it. Null: nothing.'),
    ('order_changes.change_key', 'Key that the caller chose, unique an order. Null: a change that the order''s state replays.'),
    ('order_changes.request_hash', 'SHA-256 of the request that the key is bound to. Null without a key.'),
    ('order_changes.made_by', 'Role that the session was opened by.'),
    ('order_changes.created_at', 'When; later than the change of the order before it, whatever the clock did.'),
    ('payment_events', 'What payment providers told of orders, written by payment_record() and changed by checkout_erase() alone.'),
    ('payment_events.order_id', 'The order.'),
    ('payment_events.provider', 'Who told it.'),
    ('payment_events.provider_event_id', 'Its id there; one event may be about several orders, a row each.'),
    ('payment_events.kind', 'authorized, captured, voided, refunded, failed, disputed or reversed.'),
    ('payment_events.amount_cents', 'This order''s share of the event, minor units; 0 of one that failed.'),
    ('payment_events.currency', 'ISO 4217 code, that of the order.'),
    ('payment_events.occurred_at', 'When it happened, as the provider says. Null: it does not.'),
    ('payment_events.details', 'What the caller added; checkout_erase() blanks it. Null: nothing.'),
    ('payment_events.recorded_by', 'Role that the session was opened by.'),
    ('payment_events.created_at', 'When it was recorded.')
  ) as said (name, comment);
end
$$;
