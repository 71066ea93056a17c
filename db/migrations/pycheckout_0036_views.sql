-- depends: pycheckout_0035_purchase_order_index
-- cost: none
--
-- Views for people, once the indexes of the four migrations before are there. None shows an address, a token or a secret.
-- checkout_grant_operators() opens the first two to whoever watches the shop; the last two are the owner's. Each figure is
-- looked up from the cart or the order, so that a question about one costs little. Of a cart that the checkout converted,
-- orders and lines that are the host's own count nowhere.

do $$
begin
  perform checkout_migration_open();
  if checkout_is_ours('vendor_orders', 'order_number') then
    perform checkout_index_confirm('pycheckout_0032_order_number_index', 'idx_vendor_orders_order_number', 'vendor_orders', 'order_number', true,
                                   'order_number IS NOT NULL');
  end if;
  perform checkout_index_confirm('pycheckout_0033_order_deadline_index', 'idx_vendor_orders_expires_at_id', 'vendor_orders', 'expires_at, id', false,
                                 '%created_pending%expires_at IS NOT NULL%');
  perform checkout_index_confirm('pycheckout_0034_order_refund_index', 'idx_vendor_orders_refund_due_cents', 'vendor_orders', 'refund_due_cents', false,
                                 'refund_due_cents > 0');
  perform checkout_index_confirm('pycheckout_0035_purchase_order_index', 'idx_vendor_orders_purchase_order_created_at_id', 'vendor_orders',
                                 'purchase_order, created_at, id', false, 'purchase_order IS NOT NULL');
end
$$;

create or replace view checkout_overview as
select cart.id as cart_id,
       cart.buyer_store_id,
       cart.status,
       cart.checkout_group_id,
       cart.currency,
       cart.created_at,
       cart.valid_until,
       cart.converted_at,
       cart.payment_method,
       cart.total_cents as quoted_total_cents,
       orders.total_cents as confirmed_total_cents,
       orders.count as orders,
       orders.states as order_states,
       lines.count as lines,
       lines.rejected as rejected_lines,
       lines.short as short_lines,
       events.unpublished as unpublished_events
  from cart_records as cart
  left join lateral (
    select sum(state.total_cents) as total_cents, coalesce(sum(state.count), 0)::bigint as count,
           string_agg(format('%s %s', state.count, state.status), ', ' order by state.status) as states
      from (select vendor_order.status, count(*) as count, sum(vendor_order.total_cents) as total_cents
              from vendor_orders as vendor_order
             where vendor_order.checkout_group_id = cart.checkout_group_id
               and (cart.converted_at is null or vendor_order.cart_id = cart.id and vendor_order.promo_discount_cents is not null)
             group by vendor_order.status) as state
  ) as orders on true
  left join lateral (
    select count(*) as count,
           count(*) filter (where line.status = 'rejected') as rejected,
           count(*) filter (where line.status = 'rejected' and line.notes = 'insufficient_inventory') as short
      from vendor_orders as vendor_order
      join order_line_items as line on line.order_id = vendor_order.id
     where vendor_order.checkout_group_id = cart.checkout_group_id
       and (cart.converted_at is null or line.cart_item_id = line.id)
  ) as lines on true
  left join lateral (
    select count(*) as unpublished
      from outbox_events as event
     where event.aggregate_id = cart.checkout_group_id
       and event.event_type in ('checkout.vendor_orders_created', 'checkout.converted')
       and event.published_at is null
  ) as events on true;

create or replace view outbox_backlog as
select event.event_type,
       event.attempt_count,
       count(*) as events,
       count(distinct event.aggregate_id) as aggregates,
       min(event.created_at) as oldest_at,
       date_trunc('second', greatest(now() - min(event.created_at), interval '0')) as oldest_age,
       max(event.last_error) as last_error,
       count(*) filter (where event.claimed_until > now()) as leased,
       count(*) filter (where event.next_attempt_at = 'infinity') as parked
  from outbox_events as event
 where event.published_at is null and event.next_attempt_at >= '-infinity'
 group by event.event_type, event.attempt_count;

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

comment on view checkout_overview is
  'Carts and what became of them, one row each. A cart that cart_purge() deleted is not here; its orders stand in vendor_orders.';
comment on column checkout_overview.cart_id is 'The cart.';
comment on column checkout_overview.buyer_store_id is 'Whose cart it is.';
comment on column checkout_overview.status is 'active: it can be checked out; converted: it became orders.';
comment on column checkout_overview.checkout_group_id is 'Anchor of the checkout, which its orders and events share; null before.';
comment on column checkout_overview.currency is 'ISO 4217 code; every _cents column counts its minor units.';
comment on column checkout_overview.created_at is 'When the cart was first written.';
comment on column checkout_overview.valid_until is 'When the quote runs out.';
comment on column checkout_overview.converted_at is 'When the checkout converted it; null before, and on carts that the earlier system converted.';
comment on column checkout_overview.payment_method is 'Method that the checkout confirmed; null before.';
comment on column checkout_overview.quoted_total_cents is 'Total that the buyer was quoted.';
comment on column checkout_overview.confirmed_total_cents is 'Sum of the orders as they are now, without what was rejected; null without orders.';
comment on column checkout_overview.orders is 'Number of vendor orders.';
comment on column checkout_overview.order_states is 'How many orders are in which state; null without orders.';
comment on column checkout_overview.lines is 'Number of order lines.';
comment on column checkout_overview.rejected_lines is 'Lines that are rejected, by the checkout or since.';
comment on column checkout_overview.short_lines is 'Lines that the checkout rejected for want of stock, not those of a vendor below its minimum.';
comment on column checkout_overview.unpublished_events is 'How many of the two events of the conversion nobody has published yet.';

comment on view outbox_backlog is 'Events of the relay that it has not published yet, by type and number of attempts; no row means that none waits. Rows of a host, without next_attempt_at, are not counted.';
comment on column outbox_backlog.event_type is 'Type of the events.';
comment on column outbox_backlog.attempt_count is 'How often they were tried; 0: not yet.';
comment on column outbox_backlog.events is 'How many there are.';
comment on column outbox_backlog.aggregates is 'How many checkouts they are about; aggregates of a host count too.';
comment on column outbox_backlog.oldest_at is 'When the oldest of them was written.';
comment on column outbox_backlog.oldest_age is 'How long that one has waited.';
comment on column outbox_backlog.last_error is 'An error that one of them met; null: none failed.';
comment on column outbox_backlog.leased is 'How many of them a relay has just now.';
comment on column outbox_backlog.parked is 'How many of them are parked in outbox_dead_letters, and hold the younger events of their aggregates back.';

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

do $$ begin perform checkout_migration_close('pycheckout_0036_views'); end $$;
