select 'vendor_orders' as subject,
       format('owe buyers %s (minor units of %s) that were paid beyond the totals of %s orders',
              sum(vendor_order.refund_due_cents), coalesce(vendor_order.currency::text, 'no currency'), count(*)) as problem,
       'Give it back and record that: select * from order_money where refund_due_cents > 0;' as remedy
  from vendor_orders as vendor_order
 where vendor_order.refund_due_cents > 0
 group by vendor_order.currency
 order by vendor_order.currency
