from django.db import models


class Note(models.Model):
    order = models.ForeignKey("pycheckout.VendorOrder", models.PROTECT)
    text = models.TextField()
