-- depends: pycheckout_0037_purchase_order_index
-- cost: moment vendor_orders
--
-- Views of what became of orders, for people, and the end of building the indexes of 0034 to 0037.

do $$
begin
  perform checkout_migration_open();
  if checkout_is_ours('vendor_orders', 'order_number') then
    perform checkout_index_confirm('pycheckout_0034_order_number_index', 'idx_vendor_orders_order_number', 'vendor_orders', 'order_number', true,
                                   'order_number IS NOT NULL');
  end if;
  perform checkout_index_confirm('pycheckout_0035_order_deadline_index', 'idx_vendor_orders_expires_at_id', 'vendor_orders', 'expires_at, id', false,
                                 '%created_pending%expires_at IS NOT NULL%');
  perform checkout_index_confirm('pycheckout_0036_order_refund_index', 'idx_vendor_orders_refund_due_cents', 'vendor_orders', 'refund_due_cents', false,
                                 'refund_due_cents > 0');
  perform checkout_index_confirm('pycheckout_0037_purchase_order_index', 'idx_vendor_orders_purchase_order_created_at_id', 'vendor_orders',
                                 'purchase_order, created_at, id', false, 'purchase_order IS NOT NULL');
end
$$;

create or replace view order_money as
select vendor_order.id as order_id,
       vendor_order.checkout_group_id,
       vendor_order.buyer_store_id,
       vendor_order.vendor_store_id,
       vendor_order.status,
       vendor_order.currency,
       vendor_order.total_cents,
       paid.authorized_cents,
       case when paid.events = 0 and intent.status::text in ('settled', 'paid') then intent.amount_cents else paid.captured_cents end as captured_cents,
       paid.refunded_cents,
       vendor_order.balance_due_cents,
       vendor_order.refund_due_cents,
       vendor_order.expires_at,
       intent.status as payment_status,
       intent.due_at,
       paid.events
  from vendor_orders as vendor_order
  left join payment_intents as intent on intent.order_id = vendor_order.id
 cross join lateral (
   select greatest(coalesce(sum(event.amount_cents) filter (where event.kind = 'authorized'), 0)
                   - coalesce(sum(event.amount_cents) filter (where event.kind in ('voided', 'captured')), 0), 0) as authorized_cents,
          coalesce(sum(event.amount_cents) filter (where event.kind = 'captured'), 0) as captured_cents,
          coalesce(sum(event.amount_cents) filter (where event.kind in ('refunded', 'disputed', 'reversed')), 0) as refunded_cents,
          count(*) as events
     from payment_events as event
    where event.order_id = vendor_order.id
 ) as paid;

create or replace view order_history as
select change.order_id, change.created_at, 'order' as about, change.kind, change.amount_cents, change.lines, change.reason, change.change_key as key,
       change.made_by
  from order_changes as change
 union all
select event.order_id, event.created_at, 'payment', event.kind, event.amount_cents, null, null,
       event.provider || ' ' || event.provider_event_id, event.recorded_by
  from payment_events as event;

comment on view order_money is 'What is paid and what is due of each order, a row each; amounts in minor units of its currency.';
comment on column order_money.order_id is 'The order.';
comment on column order_money.checkout_group_id is 'Anchor of its checkout.';
comment on column order_money.buyer_store_id is 'Who owes it.';
comment on column order_money.vendor_store_id is 'Whom it is owed to.';
comment on column order_money.status is 'Where the order stands.';
comment on column order_money.currency is 'ISO 4217 code; null on orders of the earlier system.';
comment on column order_money.total_cents is 'What it comes to now.';
comment on column order_money.authorized_cents is 'What is authorised and neither captured nor voided.';
comment on column order_money.captured_cents is 'What was captured; where no payment was recorded, the amount of an intent that is settled or paid.';
comment on column order_money.refunded_cents is 'What went back: refunded, disputed, or reversed.';
comment on column order_money.balance_due_cents is 'What is still to be paid.';
comment on column order_money.refund_due_cents is 'What was paid beyond the total and has not gone back; null: no payment was recorded.';
comment on column order_money.expires_at is 'When it ends unless it is paid for; null: never.';
comment on column order_money.payment_status is 'State of its payment intent; null without one.';
comment on column order_money.due_at is 'When it is due by its terms; null: at once.';
comment on column order_money.events is 'How many payment events were recorded.';

comment on view order_history is 'What was done to orders and paid on them since their checkout, a row each; sort by created_at.';
comment on column order_history.order_id is 'The order.';
comment on column order_history.created_at is 'When.';
comment on column order_history.about is 'order: a change; payment: a payment event.';
comment on column order_history.kind is 'Kind of the change, or of the payment event.';
comment on column order_history.amount_cents is 'What an adjustment added, or the amount of the payment event, minor units.';
comment on column order_history.lines is 'The lines that it changed, and by how much. Null of a payment event.';
comment on column order_history.reason is 'Why; null: none was given.';
comment on column order_history.key is 'Key of the change; provider and id of the payment event.';
comment on column order_history.made_by is 'Role that the session was opened by.';

do $$ begin perform checkout_migration_close('pycheckout_0038_order_views'); end $$;
