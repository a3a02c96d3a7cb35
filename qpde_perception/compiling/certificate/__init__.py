"""The certificate: how far the deployed network can be from its float self, in three answers."""

from qpde_perception.compiling.certificate.certificate import IMAGES, Certificate, certify

__all__ = ["IMAGES", "Certificate", "certify"]
